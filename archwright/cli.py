"""The command line. Reads arguments, calls, prints; every command has `--json`.

Imports are inside the commands: `archwright --help` answers at once, without torch or Ray.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from archwright.folders import run_folder

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from archwright.campaign import Campaign
    from archwright.recipe import Recipe

app = typer.Typer(
    name="archwright",
    help="Agentic neural-architecture search for sequence models, whose winners are real.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
state = {"debug": False}

DONE, FAILED, USAGE, EXHAUSTED, INTERRUPTED = 0, 1, 2, 3, 130

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or its name under runs/.")]


def main() -> None:
    """The entry point of the `archwright` command."""
    app()


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    state["debug"] = debug


@contextmanager
def reported(as_json: bool) -> Iterator[None]:
    """Turn what a user can mend into one sentence and an exit code."""
    from sqlalchemy.exc import DatabaseError

    from storage.database import LedgerError

    try:
        yield
    except (ValueError, LedgerError, OSError) as error:
        if state["debug"]:
            raise
        fail(f"{error}", USAGE, as_json)
    except DatabaseError as error:
        if state["debug"]:
            raise
        fail(f"the ledger is damaged ({error.orig}): restore it from a copy", USAGE, as_json)


def fail(message: str, code: int, as_json: bool) -> None:
    """Say what is wrong and exit."""
    typer.echo(f"archwright: {' '.join(message.split())}", err=True)
    if as_json:
        from archwright.console import emit

        emit({"error": message, "exit_code": code})
    raise typer.Exit(code)


@contextmanager
def reading(run: Path) -> Iterator[Session]:
    """A read-only session on a run's ledger. Raises LedgerError."""
    from sqlalchemy.orm import Session

    from storage.database import open_

    with Session(open_(run_folder(run), readonly=True)) as session:
        yield session


# ----------------------------------------------------------------------------------------- running


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe file or a shipped name.")] = "quickstart",
    out: Annotated[
        Path | None, typer.Option(help="The run folder; default runs/NAME-001 ...")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The campaign's seed.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", help="key.path=value")] = None,
    llm: Annotated[
        str | None, typer.Option(help="provider:model[@base_url] for the agents.")
    ] = None,
    evaluations: Annotated[int | None, typer.Option(help="Budget of each arm.")] = None,
    ray_address: Annotated[str | None, typer.Option(help="Join a running Ray cluster.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would run.")] = False,
    as_json: Json = False,
) -> None:
    """Launch a campaign."""
    with reported(as_json):
        from archwright.campaign import Campaign
        from archwright.environment import default_workers
        from archwright.recipe import load, with_model
        from archwright.setup import check

        overrides = list(set_ or [])
        overrides += [f"seed={seed}"] if seed is not None else []
        overrides += [f"budget.evaluations={evaluations}"] if evaluations is not None else []
        resolved = load(recipe, overrides)
        resolved = with_model(resolved, llm) if llm else resolved
        if dry_run:
            check(resolved)
            _show_plan(resolved, as_json)
            return
        folder = out or _free_folder(resolved.name)
        campaign = Campaign.create(resolved, folder, resolved.workers or default_workers())
    _drive(campaign, ray_address, as_json)


@app.command()
def resume(
    run: Run,
    ray_address: Annotated[str | None, typer.Option(help="Join a running Ray cluster.")] = None,
    as_json: Json = False,
) -> None:
    """Continue an interrupted campaign."""
    with reported(as_json):
        from archwright.campaign import Campaign

        campaign = Campaign.open(run_folder(run))
    _drive(campaign, ray_address, as_json)


def _free_folder(name: str) -> Path:
    numbers = (i for i in range(1, 10_000) if not (Path("runs") / f"{name}-{i:03d}").exists())
    return Path("runs") / f"{name}-{next(numbers):03d}"


def _drive(campaign: Campaign, ray_address: str | None, as_json: bool) -> None:
    """Run a campaign to its end and print what it came to."""
    from archwright.console import Watcher, err
    from archwright.environment import default_workers
    from archwright.executor import RayExecutor

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with reported(as_json):
        if not as_json:
            err.print(
                f"run folder {campaign.folder}; watch it: archwright inspect {campaign.folder}"
            )
        executor = RayExecutor(campaign.recipe.workers or default_workers(), ray_address)
        try:
            with Watcher(campaign.recipe) as watcher:
                campaign.run(executor, watcher)
        except KeyboardInterrupt:
            fail(
                f"interrupted; all is saved, go on with: archwright resume {campaign.folder}",
                INTERRUPTED,
                as_json,
            )
        finally:
            executor.close()
        _finish(campaign.folder, as_json)


def _finish(folder: Path, as_json: bool) -> None:
    from archwright import console, report

    with reading(folder) as db:
        summary = report.summary(db, str(folder))
        if as_json:
            console.emit(summary)
        else:
            console.leaderboard(report.leaderboard(db))
            console.outcome(summary)
    if summary["best"] is None:
        raise typer.Exit(EXHAUSTED if not summary["failures"] else FAILED)


def _show_plan(recipe: Recipe, as_json: bool) -> None:
    import yaml

    from archwright import console
    from archwright.estimate import estimate

    plan = estimate(recipe)
    if as_json:
        console.emit({"recipe": recipe.model_dump(mode="json"), "estimate": plan})
        return
    typer.echo(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False).rstrip())
    console.table([plan], "estimate")


# --------------------------------------------------------------------------------------- inspecting


@app.command()
def inspect(
    run: Run,
    what: Annotated[
        str,
        typer.Argument(
            help="leaderboard, candidates, candidate ID, lineage ID, diff ID, primitives, agents, "
            "submissions, tasks, rungs, incumbents, baseline, failures, spend, calls [ID], "
            "transcript SLOT, decisions"
        ),
    ] = "leaderboard",
    identity: Annotated[int | None, typer.Argument(metavar="ID")] = None,
    sort: Annotated[str | None, typer.Option(help="Column to sort by; -COLUMN descends.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Rows to show.")] = None,
    as_json: Json = False,
) -> None:
    """Read a run's ledger."""
    with reported(as_json):
        from archwright import console, inspection, report

        with reading(run) as db:
            rows = inspection.rows(db, run_folder(run), what, identity, sort, limit)
            blind = report.shortcuts(db) if what in inspection.SCORED else {}
        if as_json:
            console.emit({"rows": rows, **({"shortcuts": blind} if blind else {})})
        elif what == "leaderboard":
            console.leaderboard(rows)
        elif what in ("candidate", "diff", "calls") and identity is not None:
            console.details(rows[0])
        elif what == "transcript":
            console.conversation(rows)
        else:
            console.table(rows, f"{run_folder(run)}: {what}")
            console.blind(blind)


@app.command()
def sql(
    run: Run,
    query: Annotated[str, typer.Argument(help="SELECT ...")],
    as_json: Json = False,
) -> None:
    """Ask the ledger in SQL, read-only. Views: leaderboard, lineage, spend, failures."""
    with reported(as_json):
        from archwright import console, inspection

        with reading(run) as db:
            columns, rows = inspection.sql(db, query)
        if as_json:
            console.emit({"columns": columns, "rows": rows})
        else:
            console.table([dict(zip(columns, row, strict=True)) for row in rows], query)


@app.command()
def replay(
    run: Run,
    identity: Annotated[int | None, typer.Argument(metavar="ID")] = None,
    best: Annotated[bool, typer.Option("--best", help="The leader (the default).")] = False,
    calls: Annotated[
        bool, typer.Option("--calls", help="The whole search, from recorded replies; no training.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Re-train a recorded candidate, or decide a whole search again, and compare."""
    with reported(as_json):
        from archwright import console

        if best + calls + (identity is not None) > 1:
            raise ValueError("give a candidate's ID, --best or --calls, not both or all")
        row = _replay_calls(run) if calls else _replay_candidate(run, identity)
        console.emit(row) if as_json else console.details(row)
        if calls and not as_json:
            typer.echo(f"{row['replayed']} of {row['recorded']} decisions equal")
    if not row["match"]:
        raise typer.Exit(FAILED)


def _replay_candidate(run: Path, identity: int | None) -> dict[str, Any]:
    from archwright.replay import replay as again

    with reading(run) as db:
        return again(db, run_folder(run), identity)


def _replay_calls(run: Path) -> dict[str, Any]:
    from archwright.replay_calls import replay_calls

    return replay_calls(run_folder(run))


# ------------------------------------------------------------------------------------ one candidate


@app.command("eval")
def eval_(
    pattern: Annotated[str, typer.Argument(help="A pattern or the name of a reference.")],
    profile: Annotated[str, typer.Option(help="Tasks and training.")] = "mad-mini",
    preset: Annotated[str, typer.Option(help="Width and sizes.")] = "mini",
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds.")] = 1,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; repeatable.")] = None,
    as_json: Json = False,
) -> None:
    """Score one candidate without a campaign."""
    with reported(as_json):
        from archwright import console
        from archwright.single import score

        row = score(pattern, preset, profile, seeds, tuple(task or ()))
        console.emit(row) if as_json else console.details(row)
    if row["score"] is None:
        typer.echo(f"archwright: {row['pattern']} has no score: {row['detail']}", err=True)
        raise typer.Exit(FAILED)


@app.command("pattern")
def pattern_(
    pattern: Annotated[str, typer.Argument(help="A pattern or the name of a reference.")],
    preset: Annotated[str, typer.Option(help="Width and sizes.")] = "small",
    as_json: Json = False,
) -> None:
    """Parse a pattern: canonical form, layers, costs."""
    with reported(as_json):
        from archwright import console
        from archwright.single import describe

        row = describe(pattern, preset)
        console.emit(row) if as_json else console.details(row)


@app.command()
def gate(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file with a class Mixer.")],
    max_cost: Annotated[
        str, typer.Option(help="How its work may grow: linear, nlogn or quadratic.")
    ] = "quadratic",
    require_sandbox: Annotated[
        str, typer.Option(help="The lowest isolation level that will do.")
    ] = "landlock",
    unsafe_sandbox: Annotated[
        bool, typer.Option("--unsafe-sandbox", help="Allow the level `process`: no isolation.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check a written module: causality, cost and nine other rules, in the sandbox."""
    with reported(as_json):
        from archwright import console
        from archwright.gating import certificate

        found = certificate(file, max_cost, require_sandbox, unsafe_sandbox)
        if as_json:
            console.emit(found.plain())
        else:
            title = f"{file}: {found.verdict}, in sandbox level {found.level}"
            console.table(found.plain()["checks"], title, ("name", "verdict", "seconds", "detail"))
    if found.verdict == "fail":
        raise typer.Exit(FAILED)


@app.command()
def bench(
    what: Annotated[
        str, typer.Argument(help="evaluator, agents, scaffolds or sandbox")
    ] = "evaluator",
    quick: Annotated[
        bool, typer.Option("--quick", help="See that it runs; the figures mean nothing.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure figures, minutes, and print each beside its target."""
    with reported(as_json):
        from archwright import console
        from archwright.bench import measure

        found = measure(what, quick)
        console.emit(found) if as_json else console.table(found["figures"], f"bench {what}")


@app.command()
def doctor(
    require_sandbox: Annotated[
        str, typer.Option(help="The lowest level of isolation that will do.")
    ] = "landlock",
    unsafe_sandbox: Annotated[
        bool, typer.Option("--unsafe-sandbox", help="No isolation will do, if nothing else holds.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check this environment; attack its sandbox."""
    with reported(as_json):
        from archwright import console
        from archwright.doctor import checks

        rows: list[dict[str, Any]] = checks(require_sandbox, unsafe_sandbox)
        console.emit({"checks": rows}) if as_json else console.table(rows, "doctor")
    if any(row["ok"] is False for row in rows):
        raise typer.Exit(FAILED)


if __name__ == "__main__":
    main()
