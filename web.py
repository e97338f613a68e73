"""The web app for WSGI servers: `gunicorn web:app`."""

from textgen.http import create_app

app = create_app()
