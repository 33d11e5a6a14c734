"""What people see of a run on KFP's page: the fields of its form, and the text that describes it."""
