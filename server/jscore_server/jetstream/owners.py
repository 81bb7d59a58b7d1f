"""Which stream takes which subjects: one that overlaps is found without a look at all of them. Pure."""

from __future__ import annotations

from typing import Any

from jscore_server.jetstream.names import MAX_COMPARE_STEPS, TooManySubjects, subjects_overlap

DEPTH = 8  # tokens that are told apart; subjects that differ later only are compared one by one

Node = dict[str, Any]  # by token; "" has the subjects that end here, or go on beyond DEPTH, with who takes them


class SubjectOwners:
    """The subjects of one account's streams. The same may be there twice, from a race between two meta leaders."""

    def __init__(self) -> None:
        self._root: Node = {}

    def add(self, subject: str, stream: str) -> None:
        node = self._root
        for token in subject.split(".", DEPTH)[:DEPTH]:
            node = node.setdefault(token, {})
        node.setdefault("", []).append((subject, stream))

    def remove(self, subject: str, stream: str) -> None:
        """Takes back one `add`; what is not there is ignored."""
        path = [self._root]
        tokens = subject.split(".", DEPTH)[:DEPTH]
        for token in tokens:
            if token not in path[-1]:
                return
            path.append(path[-1][token])
        ends = path[-1].get("", [])
        if (subject, stream) not in ends:
            return
        ends.remove((subject, stream))
        if not ends:
            del path[-1][""]
        for token, node, above in zip(reversed(tokens), reversed(path), reversed(path[:-1]), strict=False):
            if node:
                break
            del above[token]

    def find(self, subjects: list[str], but: str) -> str | None:
        """A stream other than `but` that takes something of what the subjects match; None: nobody does.

        Raises: TooManySubjects, when the comparison would cost more than one request may.
        """
        steps = MAX_COMPARE_STEPS
        for subject in subjects:
            found, steps = self._find(subject, but, steps)
            if found is not None:
                return found
        return None

    def _find(self, subject: str, but: str, steps: int) -> tuple[str | None, int]:
        tokens = subject.split(".", DEPTH)[:DEPTH]
        stack: list[tuple[Node, int]] = [(self._root, 0)]
        while stack:
            node, depth = stack.pop()
            ends = node.get("", ()) if depth == len(tokens) or depth < 0 else ()
            steps -= 1 + len(ends)
            if steps < 0:
                raise TooManySubjects
            for other, stream in ends:
                if stream != but and subjects_overlap(other, subject):
                    return stream, steps
            if depth < 0:
                stack.extend((child, -1) for token, child in node.items() if token)
                continue
            if depth == len(tokens):
                continue
            for _, stream in node.get(">", {}).get("", ()):
                if stream != but:
                    return stream, steps
            token = tokens[depth]
            if token == ">":
                stack.extend((child, -1) for key, child in node.items() if key)  # all that is below
            elif token == "*":
                steps -= len(node)
                stack.extend((child, depth + 1) for key, child in node.items() if key)
            else:
                stack.extend((node[key], depth + 1) for key in ("*", token) if key in node)
        return None, steps
