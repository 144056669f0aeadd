"""How the dashboard looks: one style sheet, light and dark, from a phone to a wall."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from urllib.parse import quote

from markupsafe import Markup

# Before anything is painted: the theme that was chosen here, else the system's.
_HEAD = Markup("""
<script>
(() => {
  const asked = localStorage.getItem('tidemill-theme');
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const show = () => document.documentElement.dataset.theme =
    localStorage.getItem('tidemill-theme') || (dark.matches ? 'dark' : 'light');
  show();
  dark.addEventListener('change', show);
  window.tidemillTheme = () => {
    const next = document.documentElement.dataset.theme === 'dark' ? 'light' : 'dark';
    localStorage.setItem('tidemill-theme', next);
    show();
  };
})();
</script>
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
""")

# A mill wheel.
ICON = Markup(
    "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'><g fill='none' stroke='#0f7a83' stroke-width='2.6'>"
    "<circle cx='16' cy='16' r='9.5'/><circle cx='16' cy='16' r='2'/>"
    "<path d='M16 2v12M16 18v12M2 16h12M18 16h12M6 6l8.5 8.5M17.5 17.5L26 26M26 6l-8.500 8.500M14.500 17.500L6 26'/>"
    "</g></svg>"
)


@cache
def head() -> Markup:
    """What every page has in its head: the theme and the style sheet, read once."""
    style = files("tidemill_serving.dashboard").joinpath("style.css").read_text()
    return Markup("{}<style>{}</style>").format(_HEAD, Markup(style))  # noqa: S704 - a file of ours


def icon() -> Markup:
    """The link to the icon, for pages that NiceGUI does not make."""
    return Markup("<link rel='icon' href='data:image/svg+xml,{}'>").format(quote(ICON))
