// Command etcd is the etcd server, pinned by this module for Tombolo's demo and tests: before 3.5.30, any peer could
// compact a store it may only read. `cargo xtask setup` builds it when PATH has none that is new enough.
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
