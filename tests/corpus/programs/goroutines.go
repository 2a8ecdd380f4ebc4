// Goroutines that compute, allocate and hand each other what they made.
package main

import (
	"os"
	"sort"
	"strconv"
	"sync"
	"syscall"
)

func cpuSeconds() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	of := func(time syscall.Timeval) float64 { return float64(time.Sec) + float64(time.Usec)*1e-6 }
	return of(usage.Utime) + of(usage.Stime)
}

//go:noinline
func deep(depth int, seed uint64) uint64 {
	if depth == 0 {
		for i := 0; i < 200; i++ {
			seed ^= seed << 13
			seed ^= seed >> 7
			seed ^= seed << 17
		}
		return seed
	}
	return deep(depth-1, seed+uint64(depth)) ^ seed
}

type batch map[string]uint64

func produce(seconds float64, out chan<- batch) {
	seed := uint64(88172645463325252)
	for cpuSeconds() < seconds {
		made := batch{}
		for i := 0; i < 200; i++ {
			seed = deep(30, seed) | 1
			made[strconv.FormatUint(seed%1000, 10)] += seed
		}
		out <- made
	}
}

func consume(in <-chan batch) {
	for made := range in {
		names := make([]string, 0, len(made))
		for name := range made {
			names = append(names, name)
		}
		sort.Strings(names)
	}
}

func main() {
	seconds, err := strconv.ParseFloat(os.Args[1], 64)
	if err != nil {
		panic(err)
	}
	batches := make(chan batch)
	var producers, consumers sync.WaitGroup
	for i := 0; i < 4; i++ {
		producers.Add(1)
		consumers.Add(1)
		go func() { defer producers.Done(); produce(seconds, batches) }()
		go func() { defer consumers.Done(); consume(batches) }()
	}
	producers.Wait()
	close(batches)
	consumers.Wait()
}
