"""Configuration: text -> `lexer` -> `parser` (a tree with positions) -> `options` (typed) -> `validate`."""
