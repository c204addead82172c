"""A group runs in containers, and what depends on it after it."""

from nemo_airflow import Config, DockerExecutor, Experiment


def test_a_group_runs_in_containers_and_what_depends_on_it_afterwards(jobs, lab_docker, lab_image):
    executor = DockerExecutor(container_image=lab_image, docker_url=lab_docker, env={"NOTES": "notes"})
    experiment = Experiment("contained", executor, tracker=None)
    group = experiment.add([Config(jobs.note, name="left"), Config(jobs.note, name="right")], name="pair")
    experiment.add(Config(jobs.note, name="last"), name="last", dependencies=[group])
    assert experiment.run() == {"pair": ["left 1", "right 1"], "last": "last 1"}
    lines = experiment.look()
    assert [(line.name, line.status, line.executor) for line in lines] == [
        (name, "succeeded", "docker") for name in ("pair-0", "pair-1", "last")
    ]
    assert len({line.id for line in lines}) == 3
