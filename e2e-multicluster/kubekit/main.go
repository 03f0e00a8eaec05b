// Command kubekit is a Kubernetes cluster in one binary, for Tombolo's tests: the real etcd, kube-apiserver,
// kube-controller-manager and kube-proxy, each as a subcommand, pinned by this module. `cargo xtask setup --all` builds
// it. Only the chosen component is constructed, since each registers its own flags and metrics.
package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	manager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
)

const usage = "usage: kubekit etcd|apiserver|controller-manager|proxy [flags of that component]"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	name := os.Args[1]
	// The component reads its flags after its own name, as if it were a program.
	os.Args = append([]string{"kubekit-" + name}, os.Args[2:]...)
	switch name {
	case "etcd":
		etcdmain.Main(os.Args)
	case "apiserver":
		serve(apiserver.NewAPIServerCommand())
	case "controller-manager":
		serve(manager.NewControllerManagerCommand())
	case "proxy":
		serve(proxy.NewProxyCommand())
	default:
		fmt.Fprintf(os.Stderr, "kubekit: no component %q\n%s\n", name, usage)
		os.Exit(2)
	}
}

func serve(command *cobra.Command) { os.Exit(cli.Run(command)) }
