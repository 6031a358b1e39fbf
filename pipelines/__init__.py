"""Every named run of the project, the graph it becomes, and how it runs on this machine."""
