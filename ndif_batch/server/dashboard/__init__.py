"""The dashboard: pages for the people who run the cluster and for those who use it, in a browser, on any screen."""
