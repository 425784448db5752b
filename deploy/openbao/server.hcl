# OpenBao for a trial on one machine: no TLS, and unsealed by the openbao-setup service.
ui            = false
api_addr      = "http://openbao:8200"
cluster_addr  = "http://openbao:8201"
disable_mlock = true

storage "raft" {
  path    = "/openbao/file"
  node_id = "openbao"
}

listener "tcp" {
  address     = "0.0.0.0:8200"
  tls_disable = true
}
