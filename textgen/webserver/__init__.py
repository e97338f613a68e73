"""gunicorn's settings for the web app: `gunicorn --config python:textgen.webserver web:app`.

Its command line overrides them. gunicorn imports this before it forks and before gevent takes over, so
nothing here imports the rest of textgen.
"""

#: Holds thousands of waiting clients without a thread each; bounds what a slow one costs.
worker_class = "textgen.webserver.worker.Worker"
#: Clients that one process serves at a time; each is a greenlet.
worker_connections = 2000
#: Seconds that open requests get at a stop. Streams end at once, and are resumed elsewhere.
graceful_timeout = 10
#: Seconds that a connection may be idle, and that a request's head may take: a process that stands still for
#: so long, as on a machine with too much to do, closes the connections of those who asked meanwhile.
keepalive = 5
control_socket_disable = True
#: Headers that a proxy could set, and so could whoever a proxy lets pass them: none.
forwarder_headers = ""
