"""`make soak` in short: everything that can befall the proxy, at full load."""
from soak import soak


def test_a_minute_at_full_load_with_everything_that_can_happen() -> None:
    soak(60)
