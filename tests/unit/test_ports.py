"""A free port that was chosen stays free for whom it was chosen for."""

import socket

from tollhouse_server.ports import LOOPBACK, claim_port

_KEPT = 200
_CONNECTIONS = 800


def test_no_connection_takes_a_port_that_is_kept() -> None:
    kept = {claim_port(0, purpose="a test", setting="TOLLHOUSE_GRPC_PORT") for _ in range(_KEPT)}
    assert len(kept) == _KEPT

    with socket.create_server((LOOPBACK, 0), backlog=_CONNECTIONS) as server:
        connections = [socket.create_connection(server.getsockname()) for _ in range(_CONNECTIONS)]
        try:
            assert not kept & {connection.getsockname()[1] for connection in connections}
        finally:
            for connection in connections:
                connection.close()


def test_the_server_that_it_is_kept_for_listens_there_again_and_again() -> None:
    port = claim_port(0, purpose="a test", setting="TOLLHOUSE_GRPC_PORT")

    for _ in range(2):
        with socket.create_server((LOOPBACK, port)), socket.create_connection((LOOPBACK, port)):
            pass
        with socket.socket() as late:
            assert late.connect_ex((LOOPBACK, port)) != 0, "a port that is kept does not listen"
