"""An agent's way in: the service's jobs and constitutions as tools of the Model Context Protocol."""
