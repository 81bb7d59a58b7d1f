"""The cluster's permissions: which subjects cross its routes. Source: cluster-protocol.md 2.

`import` says what this server tells other servers that it wants, `export` what they may have of it. Both are this
side's alone: who sends enforces them, and INFO shows them.
"""

from __future__ import annotations

from typing import Any

from jscore_server.config.users import Permissions, Subjects
from jscore_server.dataplane import Permissions as Compiled
from jscore_server.dataplane import Plane


def bind(plane: Plane, permissions: Permissions | None) -> None:
    """Holds for routes that are made ready from now on."""
    imports, exports = (permissions.publish, permissions.subscribe) if permissions is not None else (None, None)
    plane.route_permissions(_compiled(imports), _compiled(exports))


def _compiled(subjects: Subjects | None) -> Compiled | None:
    if subjects is None or subjects == Subjects():
        return None
    return Compiled(
        subscribe_allow=[(subject, "") for subject in subjects.allow or ()],
        subscribe_deny=[(subject, "") for subject in subjects.deny],
    )


def shown(permissions: Permissions | None) -> dict[str, Any]:
    """The fields of INFO."""
    if permissions is None:
        return {}
    pairs = (("import", permissions.publish), ("export", permissions.subscribe))
    return {name: _shown(subjects) for name, subjects in pairs if subjects != Subjects()}


def _shown(subjects: Subjects) -> dict[str, list[str]]:
    found = {"allow": list(subjects.allow or ()), "deny": list(subjects.deny)}
    return {name: listed for name, listed in found.items() if listed}
