"""What every test needs: Ctrl-C reaches the runs that tests start.

A shell starts a command in the background with SIGINT ignored, and every process below it inherits that.
"""

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
