from textgen.settings import Settings
from textgen.store.connection import connect


def test_each_task_of_a_worker_finds_a_connection() -> None:
    sizes = {
        number: connect(Settings(concurrency=number)).connection_pool.max_connections for number in (8, 200)
    }
    assert sizes == {8: 64, 200: 216}
