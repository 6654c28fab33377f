"""Answers of several replicas, made one."""

from unnoise.serving import merging


def test_figures_keep_what_they_are_and_say_whose_they_are():
    one = '# HELP a All.\n# TYPE a counter\na 3\n# HELP b Some.\n# TYPE b gauge\nb{x="y",z="w x"} 4\n'
    two = "# HELP a All.\n# TYPE a counter\na 5\n# HELP c Few.\n# TYPE c gauge\nc 1\n"
    assert merging.figures({"0": one, "1": two}).splitlines() == [
        "# HELP a All.", "# TYPE a counter", 'a{replica="0"} 3', 'a{replica="1"} 5',
        "# HELP b Some.", "# TYPE b gauge", 'b{replica="0",x="y",z="w x"} 4',
        "# HELP c Few.", "# TYPE c gauge", 'c{replica="1"} 1',
    ]  # fmt: skip


def test_a_job_that_two_tell_of_is_listed_once_with_its_end():
    running, done = {"id": "2", "state": "running"}, {"id": "2", "state": "done"}
    one, two = [running, {"id": "1", "state": "done"}], [{"id": "3", "state": "waiting"}, done]
    for lists in ([one, two], [two, one]):
        assert merging.jobs(lists, 9) == [{"id": "3", "state": "waiting"}, done, {"id": "1", "state": "done"}]
        assert [each["id"] for each in merging.jobs(lists, 2)] == ["3", "2"]
