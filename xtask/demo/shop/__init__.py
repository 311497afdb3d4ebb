"""A small shop: a web app that publishes tasks and a worker that runs them. It holds no tracing code."""
