"""The suite: papermill replays notebooks in dependency order, in processes of this machine or as Ray tasks.

`notebooks` reads notebooks, `profiles` reads and checks the jobs, `schedule` decides which job runs when and which is
done, `workers` and `ray_workers` start the processes, `replay` is such a process, `warm` is the process that they are
forks of on Linux, `terminal` prints the progress, `report` writes the pages after the jobs. `run_suite` puts them
together.
"""

from collections.abc import Sequence


def run_suite(
    profile: str = "smoke",
    only: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    workers: int | None = None,
    ray: str | None = None,
    force: bool = False,
    time_limit: str | None = None,
) -> bool:
    """Replay a profile's notebooks; True if every job is finished. See `python -m kdhelpers suite --help`.

    `force` runs the jobs in `only` (all jobs if it is empty) even if nothing changed, and trains again. `time_limit`,
    such as 2h, is for each job that has no `time_limit` of its own in the profile. Raises ValueError for a faulty
    profile, before anything runs; KeyboardInterrupt after the running jobs have ended.
    """
    import click

    from kdhelpers.suite.own_networks import require_given_networks
    from kdhelpers.suite.profiles import limited, load_profile, profile_path
    from kdhelpers.suite.ray_workers import RayWorkers
    from kdhelpers.suite.rehearsal import stored_estimates
    from kdhelpers.suite.schedule import Suite
    from kdhelpers.suite.stand_ins import missing
    from kdhelpers.suite.terminal import Log, changed_since, over_their_limit, plan_text
    from kdhelpers.suite.workers import LocalWorkers

    jobs, path = limited(load_profile(profile, seeds, only), time_limit), profile_path(profile)
    require_given_networks(path, jobs)
    pool = RayWorkers(ray, workers) if ray else LocalWorkers(workers)
    forced = frozenset(job.name for job in jobs if force and (not only or job.is_named(only)))
    estimates = stored_estimates(path.stem)
    click.echo(f"{path}: {len(jobs)} jobs, {pool.description}")
    changed = changed_since(estimates, load_profile(profile, seeds[:1]), {job.entry for job in jobs})
    limits = over_their_limit(jobs, estimates)
    for line in (*missing(jobs), *limits, plan_text(jobs, estimates, pool.at_once), *changed):
        click.echo(line)
    log = Log(jobs, estimates, pool.at_once)
    try:
        return Suite(path.stem, jobs, forced, log.changed).run(pool)
    finally:
        log.end()


def rehearse_suite(
    profile: str = "smoke",
    only: Sequence[str] = (),
    seeds: Sequence[int] = (0,),
    workers: int | None = None,
    time_limit: str | None = None,
) -> bool:
    """Run each job of a profile for a few steps, print what works and an estimate; True if every job works.

    The jobs of the first seed stand for those of all `seeds`. Nothing is kept but the estimate, which grows with each
    job: the same command continues an interrupted rehearsal. Raises as `run_suite`.
    """
    import click

    from kdhelpers.suite.own_networks import require_given_networks
    from kdhelpers.suite.profiles import limited, load_profile, profile_path
    from kdhelpers.suite.rehearsal import rehearse
    from kdhelpers.suite.stand_ins import missing
    from kdhelpers.suite.terminal import Log, over_their_limit, plan_text, print_estimates
    from kdhelpers.suite.workers import LocalWorkers

    path, jobs = profile_path(profile), limited(load_profile(profile, seeds[:1], only), time_limit)
    require_given_networks(path, jobs)
    pool = LocalWorkers(workers)
    click.echo(f"rehearsal of {path}: {len(jobs)} jobs, {pool.description}")
    absent = missing(jobs)
    for line in absent:
        click.echo(f"{line}. The rehearsal takes noise or random weights")
    estimates = rehearse(path.stem, jobs, pool, Log(jobs).changed)
    print_estimates(estimates)
    planned = limited(load_profile(profile, seeds, only), time_limit)
    whole = plan_text(planned, estimates, pool.at_once)
    click.echo("\n".join([*absent, *over_their_limit(planned, estimates), whole]))
    return all(one.state == "done" for one in estimates.values())
