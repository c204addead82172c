"""Takes a file of a known size from standard input; it appears whole, or not at all."""

import os
import sys

path, size = sys.argv[1], int(sys.argv[2])
temporary = f"{path}.{os.getpid()}"
left = size
os.makedirs(os.path.dirname(path), exist_ok=True)  # the bundle may not be unpacked yet
with open(temporary, "wb") as file:
    while left:
        # The stream is never closed from the other side: no byte more than these may be asked for.
        data = os.read(0, min(left, 1 << 20))
        if not data:
            os.unlink(temporary)
            sys.exit(f"{left} of {size} bytes are missing")
        file.write(data)
        left -= len(data)
os.replace(temporary, path)
