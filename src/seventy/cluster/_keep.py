"""Runs a command again whenever it ends. Started as a file: it lives as long as the machine, and imports little."""

import subprocess
import sys
import time

while True:
    # What a machine of a cluster does until `seventy cluster stop`: when the first machine is back, it joins again.
    subprocess.run(sys.argv[1:], check=False)
    time.sleep(3)
