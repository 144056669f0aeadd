"""`train`, `retrain`, `reproduce`, `models`: from data to a champion, and back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tidemill.cli.options import (
    InstantOption,
    JsonOption,
    ModelArgument,
    OneModelArgument,
    ProjectOption,
    open_for_command,
    output,
)

if TYPE_CHECKING:
    from tidemill.cli.output import Output
    from tidemill.models.deployments import Deployment
    from tidemill_training.models import ShownVersion
    from tidemill_training.train import TrainedVersion

models_app = typer.Typer(help="Versions of models, and which one serves.", no_args_is_help=True)

VersionArgument = Annotated[str, typer.Argument(help="A version: MODEL@champion, MODEL@challenger or MODEL@3.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept in the history.")]


def register(app: typer.Typer) -> None:
    app.command()(train)
    app.command()(retrain)
    app.command()(reproduce)
    app.add_typer(models_app, name="models")


def train(
    model: ModelArgument,
    until: InstantOption = None,
    promote: Annotated[bool, typer.Option(help="Let it serve if it passes its gates.")] = True,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Fit, test on later data, register, and promote what passes its gates."""
    from tidemill_training.train import train as run

    out = output(json)
    opened = open_for_command(project)
    with out.stages(f"training {model}:") as stage:
        trained = run(opened, model, until=until, progress=stage, promote=promote)
    say_trained(out, trained)
    out.result(trained.to_dict())


def retrain(
    model: ModelArgument,
    force: Annotated[bool, typer.Option("--force", help="Fit even if no trigger fires.")] = False,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Fit a challenger if a trigger says so; promote it if it beats the champion."""
    from tidemill_training.retrain import retrain as run

    out = output(json)
    opened = open_for_command(project)
    with out.stages(f"retraining {model}:") as stage:
        decision = run(opened, model, at=opened.clock.now(), force=force, progress=stage)
    out.table(
        "Triggers",
        ("trigger", "fires", "why"),
        [(check.kind, check.fired, check.reason) for check in decision.triggers],
    )
    if decision.challenger is None:
        out.say("No trigger fires, so nothing was fitted. --force fits anyway.")
    else:
        say_trained(out, decision.challenger)
    out.result(decision.to_dict())


def reproduce(version: VersionArgument, project: ProjectOption = None, json: JsonOption = False) -> None:
    """Prove a version: rebuild its data and fit it again; exit code 1 if anything differs."""
    from tidemill_training.reproduce import reproduce as run

    out = output(json)
    opened = open_for_command(project)
    with out.stages(f"reproducing {version}:") as stage:
        report = run(opened, version, progress=stage)
    out.table(
        f"{report.model}@{report.version}, rebuilt",
        ("what", "recorded", "rebuilt", "equal"),
        [(found.what, found.recorded, found.rebuilt, found.equal) for found in report.comparisons],
    )
    out.result(report.to_dict())
    if not report.equal:
        out.say(f"Not reproduced: predictions differ by up to {report.largest_difference:.3g}.")
        raise typer.Exit(1)
    out.say(f"Reproduced: all {report.test_rows:,} test predictions are equal to the last bit.")


@models_app.command("list")
def list_models(
    model: OneModelArgument = None,
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Every registered version, newest first."""
    from tidemill_training.models import list_versions

    out = output(json)
    found = list_versions(open_for_command(project), model)
    rows = [_row(item.model, item.version, item.aliases, item.manifest, item.problem) for item in found]
    if rows:
        columns = ("model", "version", "serves as", "known until", "test metrics")
        out.table("Models", columns, rows)
    else:
        out.say("No version is registered yet. What to try next: tidemill train MODEL")
    out.result(
        [
            {
                "model": item.model,
                "version": item.version,
                "aliases": item.aliases,
                "problem": item.problem or None,
                "until": item.manifest and item.manifest.dataset.until,
                "trained_at": item.manifest and item.manifest.trained_at,
                "metrics": item.manifest and dict(item.manifest.metrics),
            }
            for item in found
        ]
    )


@models_app.command()
def show(version: VersionArgument, project: ProjectOption = None, json: JsonOption = False) -> None:
    """What a version was made from, how good it was, and the history of champions."""
    import json as text

    from tidemill_training.models import show as find

    out = output(json)
    found = find(open_for_command(project), version)
    manifest = found.manifest
    out.table(f"{manifest.name}@{manifest.version}", ("what", "value"), _facts(found))
    out.table(
        "Calibration on the test part",
        ("rows", "predicted", "came true"),
        [(group.rows, group.predicted, group.observed) for group in manifest.calibration],
    )
    out.table(
        "Champions, newest first",
        ("version", "since", "why"),
        [(f"{change.version}", change.changed_at, change.reason) for change in found.history],
    )
    out.result(
        {
            "digest": found.digest,
            "aliases": found.aliases,
            "manifest": text.loads(manifest.to_json()),
            "champions": [vars(change) for change in found.history],
        }
    )


@models_app.command()
def promote(
    version: VersionArgument,
    reason: ReasonOption = "promoted by hand",
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Let a version serve. A running API takes it up by itself."""
    from tidemill_training.models import promote as run

    _say_deployed(output(json), run(open_for_command(project), version, reason=reason))


@models_app.command()
def rollback(
    model: ModelArgument,
    reason: ReasonOption = "by hand",
    project: ProjectOption = None,
    json: JsonOption = False,
) -> None:
    """Go back to the champion before the present one."""
    from tidemill_training.models import rollback as run

    _say_deployed(output(json), run(open_for_command(project), model, reason=reason))


def say_trained(out: Output, trained: TrainedVersion) -> None:
    """A trained version for people: its metrics beside the champion's on the same rows, and the decision."""
    opponent = trained.opponent
    held: Any = (opponent.metrics or {}) if opponent is not None else {}
    before = f"champion {opponent.version}" if opponent is not None else "champion"
    dataset = trained.artifact.manifest.dataset
    out.table(
        f"{trained.model}@{trained.version} on {dataset.test_rows:,} test rows from {dataset.test_start:%Y-%m-%d} on",
        ("metric", f"version {trained.version}", before),
        [(name, value, held.get(name)) for name, value in trained.metrics.items()],
    )
    out.say(f"Learned from what was known before {dataset.until:%Y-%m-%d %H:%M} UTC.")
    verdict = "It serves now" if trained.promoted else "It does not serve"
    out.say(f"{verdict}: {'; '.join(trained.decision.reasons)}.")
    if not trained.promoted:
        out.say(f"It is kept. To let it serve all the same: tidemill models promote {trained.model}@{trained.version}")


def _say_deployed(out: Output, deployment: Deployment) -> None:
    out.say(f"{deployment.model}@{deployment.version} serves now ({deployment.reason}).")
    out.result(deployment)


def _facts(found: ShownVersion) -> list[tuple[str, str | None]]:
    manifest, dataset = found.manifest, found.manifest.dataset
    rows = f"{dataset.fit_rows:,}, {dataset.validation_rows:,}, {dataset.test_rows:,}"
    return [
        ("serves as", _role(found.aliases)),
        ("service", f"{manifest.service}, {len(manifest.features)} features"),
        ("requests from", f"{dataset.start:%Y-%m-%d %H:%M} UTC"),
        ("tested from", f"{dataset.test_start:%Y-%m-%d %H:%M} UTC"),
        ("known until", f"{dataset.until:%Y-%m-%d %H:%M} UTC"),
        ("rows fitted, validated, tested", rows),
        ("positive outcomes", f"{dataset.positive_share:.1%}"),
        *((f"test {name}", f"{value:.4f}") for name, value in manifest.metrics.items()),
        ("estimator", manifest.estimator_text),
        ("dataset digest", dataset.digest[:16]),
        ("definitions digest", manifest.catalog_digest[:16]),
        ("artifact digest", found.digest[:16]),
        ("MLflow run", manifest.run_id),
    ]


def _role(aliases: tuple[str, ...]) -> str | None:
    """What a version is now: a champion was a challenger once."""
    return "champion" if "champion" in aliases else ", ".join(aliases) or None


def _row(model: str, version: int, aliases: tuple[str, ...], manifest: Any, problem: str) -> tuple[Any, ...]:
    named = _role(aliases)
    if manifest is None:
        return model, f"{version}", named, None, problem
    rated = ", ".join(f"{name} {value:.4f}" for name, value in manifest.metrics.items())
    return model, f"{version}", named, f"{manifest.dataset.until:%Y-%m-%d %H:%M}", rated
