"""Migration files, read with PostgreSQL's own grammar into records. No server is touched here.

Import from the modules: ``model`` costs nothing, ``files`` and ``parse`` load the grammar.
"""
