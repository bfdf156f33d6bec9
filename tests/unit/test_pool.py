"""Which worker of a pool loads and answers what, and what a death, a silence or a doubt leads to. Workers are threads here."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from darumeru.errors import DarumeruError, UserError
from darumeru.requests import Answer, Request
from darumeru.workers import pool as pool_module
from darumeru.workers import worker
from darumeru.workers.messages import Answered, ToLoad
from darumeru.workers.worker import Worker
from support.workers import Threads, opened, pool_of


class Stub:
    """An engine that needs no model; `before` is called with each request."""

    follows = False

    def __init__(self, before: Callable[[Request], None], probe: float = -1.0) -> None:
        self.before, self.probe = before, probe

    def answers(self, requests: Sequence[Request], done: Container[str] = ()) -> Iterator[list[Answer]]:
        for request in requests:
            self.before(request)
            yield [Answer(request.id, logprobs=(self.probe,))]

    def describe(self) -> dict[str, Any]:
        return {"engine": "stub", "dtype": "float32"}

    def close(self) -> None:
        pass


class Stubbed(Worker):
    """A worker with a stub; it notes which models it loads."""

    def __init__(self, before: Callable[[Request], None] = lambda request: None, probe: float = -1.0) -> None:
        super().__init__()
        self.before, self.probe = before, probe
        self.loads: list[str] = []

    def load(self, model: ToLoad) -> Any:
        self.loads.append(model.path.name)
        return Stub(self.before, self.probe)


def requests(count: int) -> list[Request]:
    return [Request(f"t/{i}/0", "choose", (i % 7, i), "") for i in range(count)]


def answered(engine: Any, asked: Sequence[Request]) -> list[Answer]:
    return [a for batch in engine.answers(asked) for a in batch]


def loads(cluster: Threads) -> list[list[str]]:
    return [remote.worker.loads for remote in cluster.started]  # type: ignore[attr-defined]


def test_all_workers_answer_and_each_request_once() -> None:
    cluster = Threads(3, lambda number: Stubbed(lambda request: time.sleep(0.0005)))
    with pool_of(cluster) as pool:
        engine = pool.load(opened(), 10)
        found = answered(engine, requests(500))
        assert sorted(a.id for a in found) == sorted(r.id for r in requests(500))
        assert engine.describe() == {"engine": "stub", "dtype": "float32", "workers": 3}
        again = list(engine.answers(requests(500), {r.id for r in requests(499)}))
        assert [a.id for batch in again for a in batch] == ["t/499/0"]
    assert loads(cluster) == [["model"]] * 3


def test_a_death_costs_only_what_was_not_answered() -> None:
    computed: Counter[str] = Counter()
    dying = {"t/30/0", "t/200/0", "t/333/0"}

    def before(request: Request) -> None:
        if request.id in dying:
            dying.discard(request.id)
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        computed[request.id] += not request.id.startswith("probe")
        time.sleep(0.001)

    cluster = Threads(2, lambda number: Stubbed(before))
    with pool_of(cluster) as pool:
        found = answered(pool.load(opened(), 10), requests(400))
        assert "3 died and were replaced" in pool.summary()
    assert len(cluster.started) == 5
    assert Counter(a.id for a in found) == Counter(r.id for r in requests(400))
    assert not [a for a in found if a.error]
    twice = sum(count - 1 for count in computed.values() if count)
    assert twice < 400, "at most what was in flight"


def test_a_request_that_ends_three_workers_is_named() -> None:
    deaths = []

    def before(request: Request) -> None:
        if request.id == "t/7/0":
            deaths.append(request.id)
            raise MemoryError

    with pool_of(Threads(2, lambda number: Stubbed(before))) as pool:
        found = {a.id: a for a in answered(pool.load(opened(), 10), requests(100))}
    assert len(deaths) == 3
    assert [id_ for id_, a in found.items() if a.error] == ["t/7/0"]
    assert "'t/7/0' ended 3 workers, the last one so: MemoryError" in found["t/7/0"].error


def test_workers_that_die_of_everything_end_the_run() -> None:
    def before(request: Request) -> None:
        if not request.id.startswith("probe"):
            raise RuntimeError("no power")

    with pool_of(Threads(2, lambda number: Stubbed(before))) as pool:
        engine = pool.load(opened(), 10)
        with pytest.raises(DarumeruError, match=r"12 workers died one after another .*no power"):
            answered(engine, requests(300))


def test_workers_that_die_while_they_load_end_the_run() -> None:
    class Fragile(Stubbed):
        def load(self, model: ToLoad) -> Any:
            raise RuntimeError("segmentation fault")

    with pool_of(Threads(1, lambda number: Fragile())) as pool:
        with pytest.raises(DarumeruError, match=r"3 workers died one after another while they loaded the model"):
            pool.load(opened(), 10)
        assert "died" in pool.summary()


def test_a_silent_worker_is_replaced() -> None:
    hang, hanging = threading.Event(), []

    def before(request: Request) -> None:
        if request.id == "t/3/0" and not hanging:
            hanging.append(request.id)
            hang.wait(60)

    cluster = Threads(2, lambda number: Stubbed(before))
    with pool_of(cluster, stall=2.0) as pool:
        found = answered(pool.load(opened(), 10), requests(200))
        assert "1 died and was replaced" in pool.summary()
    hang.set()
    assert sorted(a.id for a in found) == sorted(r.id for r in requests(200))


def test_a_models_own_fault_ends_it_alone_and_the_worker_goes_on() -> None:
    class Picky(Stubbed):
        def load(self, model: ToLoad) -> Any:
            if model.path.name == "bad":
                raise UserError("transformers cannot load 'bad'")
            return super().load(model)

    cluster = Threads(1, lambda number: Picky())
    with pool_of(cluster) as pool:
        with pytest.raises(UserError, match="cannot load 'bad'"):
            pool.load(opened("bad"), 10)
        assert len(answered(pool.load(opened("good"), 10), requests(20))) == 20
    assert len(cluster.started) == 1


def test_an_engine_that_fails_while_it_answers_ends_its_model_alone() -> None:
    def before(request: Request) -> None:
        if request.id == "t/150/0":
            raise DarumeruError("the engine is out of blocks")

    with pool_of(Threads(1, lambda number: Stubbed(before))) as pool:
        engine = pool.load(opened("a"), 10)
        with pytest.raises(DarumeruError, match="out of blocks"):
            answered(engine, requests(300))
        engine.close()
        assert len(answered(pool.load(opened("b"), 10), requests(100))) == 100


def ask_side_by_side(cluster: Threads, models: Sequence[str], count: int = 60) -> dict[str, int]:
    """Ask models in as many threads; how many answers each got."""
    found: dict[str, int] = {}

    def ask(name: str) -> None:
        with pool.load(opened(name), 10) as engine:
            found[name] = len(answered(engine, requests(count)))

    with pool_of(cluster) as pool:
        pool.expect(len(models))
        threads = [threading.Thread(target=ask, args=(name,)) for name in models]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    return found


def test_as_many_models_as_workers_are_loaded_once_each() -> None:
    cluster = Threads(3, lambda number: Stubbed(lambda request: time.sleep(0.002)))
    assert ask_side_by_side(cluster, ["a", "b", "c"]) == {"a": 60, "b": 60, "c": 60}
    assert sorted(name for names in loads(cluster) for name in names) == ["a", "b", "c"]


def test_more_models_than_workers_wait_their_turn() -> None:
    cluster = Threads(2, lambda number: Stubbed(lambda request: time.sleep(0.002)))
    found = ask_side_by_side(cluster, list("abcdefg"))
    assert found == dict.fromkeys("abcdefg", 60)
    loaded = [name for names in loads(cluster) for name in names]
    assert len(loaded) <= len("abcdefg") + 1, "a model stays where it is loaded; the last one may be helped with"


def test_idle_workers_help_with_the_last_model() -> None:
    cluster = Threads(3, lambda number: Stubbed(lambda request: time.sleep(0.004)))
    with pool_of(cluster) as pool:
        pool.expect(2)
        long, short = pool.load(opened("long"), 10), pool.load(opened("short"), 10)
        thread = threading.Thread(target=lambda: answered(long, requests(900)))
        thread.start()
        answered(short, requests(10))
        short.close()
        pool.expect(1)
        thread.join(60)
        assert not thread.is_alive()
    assert all("long" in names for names in loads(cluster)), loads(cluster)


def test_a_model_that_comes_later_gets_its_share() -> None:
    """Both workers hold the first; one goes over to the second at the end of its window."""
    cluster = Threads(2, lambda number: Stubbed(lambda request: time.sleep(0.002)))
    with pool_of(cluster) as pool:
        first = pool.load(opened("first"), 10)
        thread = threading.Thread(target=lambda: answered(first, requests(2000)))
        thread.start()
        time.sleep(0.5)
        assert len(answered(pool.load(opened("second"), 10), requests(50))) == 50
        assert thread.is_alive(), "the first was not done yet"
        thread.join(60)
    assert sorted(map(len, loads(cluster))) in ([1, 2], [1, 3], [2, 2])


def test_what_is_loaded_already_is_not_loaded_again() -> None:
    cluster = Threads(1, lambda number: Stubbed())
    with pool_of(cluster) as pool:
        for _ in range(3):
            with pool.load(opened(), 10) as engine:
                assert len(answered(engine, requests(20))) == 20
    assert loads(cluster) == [["model"]]


def test_a_worker_that_answers_otherwise_is_refused() -> None:
    def worker_of(number: int) -> Worker:
        return Stubbed(lambda request: time.sleep(0.005), probe=-1.0 - number)

    with (
        pool_of(Threads(2, worker_of)) as pool,
        pytest.raises(
            UserError, match=r"answers otherwise than the one on .* mean log-probability is -0\.\d+ in place"
        ),
    ):
        answered(pool.load(opened(), 10), requests(2000))


def test_a_node_with_other_versions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    here = worker.versions()
    monkeypatch.setattr(worker, "versions", lambda: here | {"torch": "2.0.1"})
    refused = pytest.raises(UserError, match=r"has torch 2\.0\.1, and here it is .* install the same versions")
    with pool_of(Threads(1, lambda number: Stubbed())) as pool, refused:
        pool.load(opened(), 10)


def test_a_folder_that_a_node_does_not_see_is_named() -> None:
    with pool_of(Threads(1)) as pool, pytest.raises(UserError, match=r"does not see the model folder '/models/model'"):
        pool.load(opened(), 10)


def test_workers_that_cannot_start_end_the_run() -> None:
    class Broken(Worker):
        def work(self) -> Iterator[Any]:
            raise ImportError("No module named 'darumeru'")
            yield

    failed = pytest.raises(DarumeruError, match=r"No worker could be started, 3 were tried: .*No module named")
    with pool_of(Threads(1, lambda number: Broken())) as pool, failed:
        pool.load(opened(), 10)


def test_what_workers_cannot_do_is_refused() -> None:
    with pool_of(Threads(1)) as pool:
        with pytest.raises(UserError, match="--exact needs the batches of one engine"):
            pool.load(opened(exact=True), 10)
        with pytest.raises(UserError, match="asks a server, which needs no workers"):
            pool.load(opened(needs_server=True), 10)


def test_whoever_waits_when_the_pool_is_closed_gets_an_error() -> None:
    faults: list[Exception] = []

    def ask() -> None:
        try:
            answered(engine, requests(1000))
        except DarumeruError as error:
            faults.append(error)

    with pool_of(Threads(1, lambda number: Stubbed(lambda request: time.sleep(0.01)))) as pool:
        engine = pool.load(opened(), 10)
        thread = threading.Thread(target=ask)
        thread.start()
        time.sleep(0.3)
    thread.join(30)
    assert "The workers were ended" in str(faults[0])


class Full:
    """An engine that asks at once what follows an answer, and notes how many requests it has under way."""

    follows = True

    def __init__(self) -> None:
        self.under_way: list[int] = []

    def answers(self, requests: Sequence[Request], done: Container[str] = (), follow: Any = None) -> Any:
        todo = list(requests)
        while todo:
            self.under_way.append(len(todo))
            answer = Answer(todo.pop(0).id)
            if follow and (more := follow(answer)):
                todo.append(more)
            yield [answer]


def test_an_engine_that_takes_more_while_it_answers_stays_full() -> None:
    holder, engine, asked = Worker(), Full(), requests(24)
    holder.give(asked[8:16])
    holder.give(asked[16:])
    found = list(holder._answered(engine, asked[:8]))  # type: ignore[arg-type]
    assert all(isinstance(m, Answered) for m in found)
    assert sorted(a.id for m in found for a in m.answers) == sorted(r.id for r in asked)
    assert engine.under_way[:17] == [8] * 17


def test_a_model_that_is_asked_in_rounds_keeps_its_workers() -> None:
    """As a race asks: what is asked between rounds is nothing."""
    cluster = Threads(2, lambda number: Stubbed())
    with pool_of(cluster) as pool, pool.load(opened(), 10) as engine:
        for number in range(5):
            asked = [replace(r, id=f"{r.id}@{number}") for r in requests(40)]
            assert len(answered(engine, asked)) == 40
            time.sleep(0.05)
    assert all(len(names) <= 1 for names in loads(cluster))


def test_workers_may_join_and_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--workers auto` a node that joins brings workers; those of one that leaves are not replaced, and nobody is blamed."""
    monkeypatch.setattr(pool_module, "_COUNT", 0.0)
    gone = threading.Event()
    computed: Counter[int] = Counter()

    def worker_of(number: int) -> Stubbed:
        def before(request: Request) -> None:
            if gone.is_set() and number:
                raise RuntimeError("its node is gone")
            computed[number] += not request.id.startswith("probe")
            time.sleep(0.001)

        return Stubbed(before)

    cluster = Threads(1, worker_of)
    monkeypatch.setattr(cluster, "alive", lambda node: not gone.is_set())
    with pool_of(cluster) as pool, pool.load(opened(), 10) as engine:
        found: list[Answer] = []
        for batch in engine.answers(requests(1500)):
            found += batch
            if cluster.count == 1 and not gone.is_set():
                cluster.count = 3
            if not gone.is_set() and all(computed[number] for number in range(3)):
                cluster.count = 1
                gone.set()
        assert pool.size == 1
    assert gone.is_set()
    assert len(cluster.started) == 3
    assert Counter(a.id for a in found) == Counter(r.id for r in requests(1500))
    assert not [a for a in found if a.error]
