"""New projects: `tidemill init`."""

from tidemill.scaffold.project import MadeProject, create_project

__all__ = ["MadeProject", "create_project"]
