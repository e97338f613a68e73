"""The supervisor of a detached stack, as `textgen up --detach` starts it."""

import sys

from textgen.stack import detached
from textgen.stack.options import Options

if __name__ == "__main__":
    sys.exit(detached.run(Options.from_json(sys.argv[1]), int(sys.argv[2])))
