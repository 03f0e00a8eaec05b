module tombolo.io/e2e-client

go 1.21
