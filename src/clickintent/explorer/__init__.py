"""The explorer: a folder of small files and a page that shows them, for any web server.

``explorer/src/data.ts`` says what the files hold. What makes them are pure functions over tables and arrays;
``folder`` writes, ``pipeline.exploring`` brings what the workspace holds. ``review`` is the service's,
too, so nothing is imported here: it needs none of the rest.
"""
