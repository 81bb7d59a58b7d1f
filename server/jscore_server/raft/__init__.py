"""Raft: the rules of one group (core), their driver over a log and links (group, host), the birth of the meta group.

The hot path, in order: host.RaftHost.receive and Group.appended -> core.Core -> group.Group.drain -> Transport.
"""

from .bootstrap import Adopt, Birth, Bootstrap, Hello, Wait
from .compare import Difference
from .core import ChangeRefused, Changing, InvariantBroken, NotLeader, Role, Timing
from .group import Group, Replica
from .host import RaftHost, Transport
from .members import Members, NewerVersion, members_from_json, members_to_json
from .messages import FRAME_APPEND, FRAME_SMALL, ProtocolError

__all__ = [
    "FRAME_APPEND", "FRAME_SMALL", "Adopt", "Birth", "Bootstrap", "ChangeRefused", "Changing", "Difference", "Group",
    "Hello", "InvariantBroken", "Members", "NewerVersion", "NotLeader", "ProtocolError", "RaftHost", "Replica", "Role",
    "Timing", "Transport", "Wait", "members_from_json", "members_to_json",
]  # fmt: skip
