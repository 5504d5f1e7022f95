"""Start servers without a full command line: serve.py bjoern|fastpysgi|fastpysgi-nodelay PORT."""

import sys

from wsgi_app import app

kind, port = sys.argv[1], int(sys.argv[2])

if kind == "bjoern":
    import bjoern

    bjoern.run(app, "127.0.0.1", port, listen_backlog=4096)
elif kind in ("fastpysgi", "fastpysgi-nodelay"):
    import fastpysgi

    fastpysgi.server.backlog = 4096
    fastpysgi.server.tcp_nodelay = int(kind != "fastpysgi")  # its default is 0
    fastpysgi.run(app, "127.0.0.1", port)
else:
    sys.exit(__doc__)
