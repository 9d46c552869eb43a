"""The suite: notebooks replayed by papermill, in dependency order, in N processes of this machine or as Ray tasks.

`profiles` reads and checks what to run, `schedule` decides what runs when and what counts as done, `workers` start
the processes, `replay` is such a process, `summary` shows how it goes. `run_suite` puts them together.
"""

from collections.abc import Sequence


def run_suite(
    profile: str = "smoke",
    only: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    workers: int | None = None,
    ray: str | None = None,
    force: bool = False,
    live: bool = False,
) -> bool:
    """Replay a profile's notebooks; True where every job is finished. See `python -m kdhelpers suite --help`.

    `force` runs what `only` names (without it everything) even where nothing changed, training included. Raises
    ValueError for a faulty profile, before anything runs; KeyboardInterrupt once the running jobs were ended.
    """
    import click

    from kdhelpers.suite.profiles import load_profile, profile_path
    from kdhelpers.suite.schedule import Suite
    from kdhelpers.suite.terminal import Display
    from kdhelpers.suite.workers import LocalWorkers, RayWorkers

    jobs = load_profile(profile, seeds, only)
    place = RayWorkers(ray, workers) if ray else LocalWorkers(workers)
    forced = frozenset(job.name for job in jobs if force and (not only or job.is_named(only)))
    click.echo(f"{profile_path(profile)}: {len(jobs)} jobs, {place.description}")
    display = Display(jobs, live)
    suite = Suite(profile_path(profile).stem, jobs, forced, display.changed, display.tick)
    try:
        return suite.run(place)
    finally:
        display.end()
