"""The suite: papermill replays notebooks in dependency order, in processes of this machine or as Ray tasks.

`notebooks` reads notebooks, `profiles` reads and checks the jobs, `schedule` decides which job runs when and which is
done, `workers` starts the processes, `replay` is such a process, `warm` is the process that they are forks of on Linux,
`terminal` prints the progress, `report` writes the pages after the jobs. `run_suite` puts them together.
"""

from collections.abc import Sequence


def run_suite(
    profile: str = "smoke",
    only: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    workers: int | None = None,
    ray: str | None = None,
    force: bool = False,
) -> bool:
    """Replay a profile's notebooks; True if every job is finished. See `python -m kdhelpers suite --help`.

    `force` runs the jobs in `only` (all jobs if it is empty) even if nothing changed, and trains again. Raises
    ValueError for a faulty profile, before anything runs; KeyboardInterrupt after the running jobs have ended.
    """
    import click

    from kdhelpers.suite.profiles import load_profile, profile_path
    from kdhelpers.suite.schedule import Suite
    from kdhelpers.suite.terminal import Log
    from kdhelpers.suite.workers import LocalWorkers, RayWorkers

    jobs = load_profile(profile, seeds, only)
    pool = RayWorkers(ray, workers) if ray else LocalWorkers(workers)
    forced = frozenset(job.name for job in jobs if force and (not only or job.is_named(only)))
    click.echo(f"{profile_path(profile)}: {len(jobs)} jobs, {pool.description}")
    log = Log(jobs)
    try:
        return Suite(profile_path(profile).stem, jobs, forced, log.changed).run(pool)
    finally:
        log.end()
