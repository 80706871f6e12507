"""Several servers share a stream: all of them give the pipeline's rows."""

import contextlib
import socket

import pytest

from dlen_cam2.utils.errors import UserError
from pipelines.features.online.redis_store import Redis
from pipelines.features.online.resp import Client
from tests.pipelines.features.test_computed_features import EVERY, LOGS
from tests.support import computed, online, redis_server


@pytest.fixture(params=["fake", pytest.param("redis-server", marks=pytest.mark.skipif(
    redis_server.PROGRAM is None, reason="needs Debian's redis-server, which is not installed"))])
def port(request, tmp_path):
    if request.param == "redis-server":
        with redis_server.started(tmp_path) as port:
            yield port
    else:
        with contextlib.closing(redis_server.Fake()) as fake:
            yield fake.port


@pytest.fixture
def fake():
    with contextlib.closing(redis_server.Fake("s e/cret")) as fake:
        yield fake


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    directory, log, schema = tmp_path_factory.mktemp("shop"), LOGS["many days"](), computed.schema_of(EVERY)
    wanted = online.data_set(directory, schema, lambda snapshots: computed.compute(log, schema, snapshots))
    return directory, log, schema, wanted


def test_servers_that_take_turns_give_the_rows_of_the_pipeline(shop, port):
    """Each call goes to another server; one joins late, and one forgets what is old."""
    directory, log, schema, wanted = shop

    def server():
        return online.opened(directory, "d0", store=Redis(f"redis://127.0.0.1:{port}/1", "shop"))

    servers, calls = [server(), server()], [0]

    class Turns:
        def __getattr__(self, name):
            calls[0] += name in ("update", "feedback", "features")
            return getattr(servers[calls[0] % len(servers)], name)

    replay, played = online.shop(schema), {}
    for n, day in enumerate(online.days(log, computed.day_of)[1:]):
        played |= replay.play(Turns(), [e for e in log if computed.day_of(e) == day])
        if n == 2:
            servers.append(server())
        servers[0].compact()
    assert online.differences(played, wanted) == [] and len(played) > 100
    for features in servers:
        features.close()


def test_a_stream_is_of_one_day(shop, port):
    directory, *_ = shop
    store = Redis(f"redis://127.0.0.1:{port}", "shop")
    assert store.day() == ""
    online.opened(directory, "d1", store=store).close()
    with online.opened(directory, store=Redis(f"redis://127.0.0.1:{port}", "shop")) as again:
        assert again.day == "d1"
    with pytest.raises(UserError, match=rf"redis://127.0.0.1:{port}/0: the stream 'shop' goes on from .* day 'd1'"):
        online.opened(directory, "d0", store=Redis(f"redis://127.0.0.1:{port}", "shop"))


def test_feedback_that_two_servers_tell_at_once_counts_once(shop, fake):
    """Each of them found it new; the stream has it twice."""
    directory, *_ = shop
    url = f"redis://:s%20e%2Fcret@127.0.0.1:{fake.port}/2"
    first, second = (online.opened(directory, "d0", store=Redis(url, "shop")) for _ in range(2))
    now = computed.START + 40 * computed.HOUR

    def clicks(features):
        return features.features("u", {"what": [1], "brand": ["a"]}, {"tab": 0}, now + 1001)["clicks_1h"][0]

    before = clicks(first)
    number = first.update({"who": "u", "what": 1, "ts": now, "brand": "a", "tab": 0})
    first.feedback(number, {"click": 1, "dwell": 1.0})
    ((_, fields),) = fake.streams[b"shop"][1:]
    fake.streams[b"shop"].append((3, fields))
    assert clicks(first) == clicks(second) == before + 1
    fake.streams[b"shop"].append((4, (b"update", b"?")))
    with pytest.raises(UserError, match="the stream 'shop' must hold updates of online features only. Received: .*4-0"):
        clicks(first)
    first.close()
    second.close()


def test_a_lost_answer_is_told_and_nothing_is_sent_twice(shop, fake):
    """Whoever called must decide: the update may be in the stream."""
    directory, *_ = shop
    features = online.opened(directory, "d0", store=Redis(f"redis://:s%20e%2Fcret@127.0.0.1:{fake.port}", "shop"))
    shown = {"who": "u", "what": 1, "ts": computed.START + 40 * computed.HOUR, "brand": "a", "tab": 0}
    fake.breaks = "XADD"
    with pytest.raises(UserError, match="must answer XADD; it may have been done or not. Received: the connection was"):
        features.update(shown)
    assert len(fake.streams[b"shop"]) == 1
    features.update(shown)  # on a new connection
    assert fake.commands.count("AUTH") == 2 and len(fake.streams[b"shop"]) == 2
    features.close()


@pytest.mark.parametrize("url", ["http://x", "redis://", "redis://h:no", "redis://h/x", "redis://h:99999"])
def test_a_url_that_is_none_is_refused(url):
    with pytest.raises(UserError, match="the url must be redis://:PASSWORD@HOST:PORT/DATABASE. Received"):
        Client(url)


def test_a_server_that_is_not_there_or_refuses_is_named_without_the_password(fake):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(UserError, match="redis://127.0.0.1:.*/0 must answer PING.*Received: .*refused"):
            Client(f"redis://:secret@127.0.0.1:{free.getsockname()[1]}")("PING")
    with (pytest.raises(UserError, match="must accept AUTH. Received: WRONGPASS") as caught,
          Client(f"redis://:secret@127.0.0.1:{fake.port}") as client):
        client("GET", "x")
    assert "secret" not in str(caught.value)
    with Client(f"redis://:s%20e%2Fcret@127.0.0.1:{fake.port}") as client:
        with pytest.raises(UserError, match="must accept FLUSHALL. Received: ERR unknown command"):
            client("FLUSHALL")
        assert client("GET", "x") is None  # the connection goes on
