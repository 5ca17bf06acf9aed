"""The stability study: which objectives collapse, at which learning rate and how many updates a batch."""
