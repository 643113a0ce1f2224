"""Contact sheets and plots for people to review, made from manifests. No Dagster here."""
