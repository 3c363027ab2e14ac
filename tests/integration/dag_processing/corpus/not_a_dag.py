VALUE = "this file has no Dag and is not looked at"
