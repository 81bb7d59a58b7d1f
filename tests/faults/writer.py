"""A process that appends from several threads and says on its standard output what is durable, until it is killed.

Lines: `a SEQ WRITER NUMBER`, message SEQ is durable; `d SEQ`, about to delete it; `D SEQ`, that is durable; `F TEXT`,
the log takes no more writes, and the process ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading

from stored import body

import jscore


def say(text: str) -> None:
    os.write(1, text.encode() + b"\n")  # shorter than PIPE_BUF: never torn apart


def write(log: jscore.Log, writer: int, start: int) -> None:
    mine: list[int] = []
    number = start
    try:
        while True:
            if number % 7 == 6:  # several at once, durable together
                numbers = range(number, number + 5)
                seqs = log.extend([(f"w.{writer}", body(writer, k)) for k in numbers])
                for seq, k in zip(seqs, numbers, strict=True):
                    say(f"a {seq} {writer} {k}")
                mine += seqs
                number += 5
            else:
                seq = log.append(body(writer, number), f"w.{writer}")
                say(f"a {seq} {writer} {number}")
                mine.append(seq)
                number += 1
            if number % 11 == 3:
                gone = mine.pop(number * 7919 % len(mine))
                say(f"d {gone}")
                log.delete(gone)
                say(f"D {gone}")
    except jscore.Failed as err:
        say(f"F {err}")


def main() -> None:
    directory, options, start = sys.argv[1], json.loads(sys.argv[2]), int(sys.argv[3])
    if "keys" in options:
        options["keys"] = bytes.fromhex(options["keys"])
    log = jscore.open(directory, **options)
    say("ready")
    threads = [threading.Thread(target=write, args=(log, k, start)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with contextlib.suppress(jscore.Failed):
        log.close()


if __name__ == "__main__":
    main()
