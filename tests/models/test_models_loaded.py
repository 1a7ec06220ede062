"""Batches under way: in order, none lost, and no more of them at once than the device needs to stay busy."""

import pytest

from mig_jax.models.inference.loaded import in_flight


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 20])
def test_all_come_in_order_and_at_most_four_are_under_way(count):
    sent, received, most = [], [], 0

    def send(item: int) -> str:
        nonlocal most
        sent.append(item)
        most = max(most, len(sent) - len(received))
        return f"sent {item}"

    def receive(item: int, what: str) -> int:
        assert what == f"sent {item}"
        received.append(item)
        return item

    found = in_flight(range(count), send, receive)
    assert not sent  # nothing is sent before someone asks
    assert list(found) == sent == received == list(range(count))
    assert most == min(count, 4)


def test_the_next_ones_are_under_way_while_the_caller_has_one():
    sent = []
    found = in_flight(range(20), sent.append, lambda item, _: item)
    assert next(found) == 0
    assert sent == [0, 1, 2, 3]
    assert next(found) == 1
    assert sent == [0, 1, 2, 3, 4]
