"""The trigger that follows a job while its task is deferred."""
