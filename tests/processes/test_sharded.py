"""An optimizer's state divided over processes: the same bits, a part of the memory, saved and read by any number."""

from processes.torchrun import HERE, finish, start


def test_it_takes_the_same_steps_in_any_number_of_processes(tmp_path):
    before: list[str] = []
    for processes in (1, 2, 3):
        out = str(tmp_path / f"{processes}.pt")
        agent = start(processes, str(HERE / "sharded_theta.py"), out, *before)
        said = finish(agent)
        assert agent.returncode == 0, said
        before = [out]
