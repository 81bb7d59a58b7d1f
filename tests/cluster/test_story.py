"""The first thing that must be true: servers die, and nothing acknowledged is lost."""

from __future__ import annotations

import pytest
from harness import Cluster, Story, run
from jscore_server.demo import PlainViewer


@pytest.mark.timeout(400)
def test_nothing_acknowledged_is_lost_while_leaders_die_and_when_all_die_at_once(cluster: Cluster) -> None:
    story = Story(cluster, PlainViewer())
    assert run(story.play(kills=3, between=2000), 380) == []
    assert len(story.gaps) == 3
    assert len(story.acked) >= 3 * 2 * 2000
