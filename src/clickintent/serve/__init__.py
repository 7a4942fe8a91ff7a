"""The HTTP service, intent at the moment of login: ``run.serve`` runs it, ``app.create_app`` is its app."""
