"""Serves one page; with --ask-yourself it fetches that page once and ends."""

import sys
import threading
import urllib.request
from wsgiref.simple_server import make_server

import bottle

app = bottle.Bottle()


@app.route("/")
def index():
    return "Hello from Bottle\n"


server = make_server("127.0.0.1", 0 if "--ask-yourself" in sys.argv else 8080, app)
if "--ask-yourself" in sys.argv:
    threading.Thread(target=server.handle_request).start()
    with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/") as page:
        print(page.read().decode(), end="")
else:
    server.serve_forever()
