"""XCom backend and task log store on S3-compatible object storage."""
