// A client as Go programs are written: net/http, the resolver of package net over UDP, and plain UDP sockets.
// It prints one line for each answer, and fails at the first that is wrong.
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"time"
)

const patience = 3 * time.Second

func main() {
	log.SetFlags(0)
	for _, target := range os.Args[1:] {
		fmt.Println(byHTTP(target))
		fmt.Println(byResolver(target))
		fmt.Println(byUnconnected(target))
	}
}

func check(what string, err error) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}

func byHTTP(target string) string {
	client := http.Client{Timeout: patience}
	response, err := client.Get("http://" + target + "/")
	check("http", err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	check("http", err)
	return string(body[:len(body)-1])
}

// The resolver connects its UDP socket and takes an answer only with its query's id.
func byResolver(target string) string {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, "udp", target)
	}}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	texts, err := resolver.LookupTXT(ctx, "which.rebel-base.mesh.")
	check("resolver", err)
	return texts[0]
}

func byUnconnected(target string) string {
	address, err := net.ResolveUDPAddr("udp", target)
	check("address", err)
	socket, err := net.ListenUDP("udp", nil)
	check("listen", err)
	defer socket.Close()
	check("deadline", socket.SetDeadline(time.Now().Add(patience)))
	_, err = socket.WriteToUDP([]byte("who"), address)
	check("send", err)
	buffer := make([]byte, 2048)
	length, source, err := socket.ReadFromUDP(buffer)
	check("receive", err)
	if !source.IP.Equal(address.IP) || source.Port != address.Port {
		log.Fatalf("dialled %s, answered by %s", address, source)
	}
	return string(buffer[:length])
}
