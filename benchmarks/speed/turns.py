"""One round when asked for one: the protocol between `compare.py` and each contestant, which is a process of its own.

The contestant says that it is ready; a line on its standard input asks for a round; its seconds are the answer.
Whatever else it prints is ignored, since libraries print a lot.
"""

import json
import sys
import time

MARK = "@@turns "


def say(**facts):
    """Tell the one who compares."""
    print(MARK + json.dumps(facts), flush=True)


def asked():
    """Wait until a round is asked for; False where none will be any more."""
    return bool(sys.stdin.readline())


def take_turns(one_round, **facts):
    """Run `one_round()` as often as it is asked for, and tell how long each took."""
    say(ready=True, **facts)
    while asked():
        started = time.perf_counter()
        one_round()
        say(seconds=time.perf_counter() - started)
