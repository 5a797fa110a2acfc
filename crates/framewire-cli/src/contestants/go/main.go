// A goroutine per connection, standard library only: the echo that framewire bench compares with.
//
// A frame is 4 bytes of big-endian length and that many bytes of payload. Replies are buffered and flushed when no
// further input is buffered. The server says "port N" and ends with its standard input.
package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

const (
	maxFrame = 1 << 20
	buffered = 4096 // what bufio takes by itself
)

func main() {
	port := flag.Int("port", 0, "port on 127.0.0.1, 0 for a free one")
	flag.Parse()

	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", *port))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Printf("port %d\n", listener.Addr().(*net.TCPAddr).Port)

	go func() {
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()

	for {
		conn, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "accept:", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go echo(conn)
	}
}

func echo(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, buffered)
	out := bufio.NewWriterSize(conn, buffered)
	var large []byte
	for {
		prefix, err := in.Peek(4)
		if err != nil {
			return
		}
		length := binary.BigEndian.Uint32(prefix)
		if length > maxFrame {
			return
		}
		frame := 4 + int(length)
		if frame <= buffered {
			// a small frame goes from buffer to buffer
			whole, err := in.Peek(frame)
			if err != nil {
				return
			}
			out.Write(whole)
			in.Discard(frame)
		} else {
			if cap(large) < frame {
				large = make([]byte, frame)
			}
			if _, err := io.ReadFull(in, large[:frame]); err != nil {
				return
			}
			out.Write(large[:frame])
		}
		if in.Buffered() == 0 || incomplete(in) {
			if out.Flush() != nil {
				return
			}
		}
	}
}

// incomplete tells whether what is buffered is only the beginning of a frame: the rest may wait for our reply.
func incomplete(in *bufio.Reader) bool {
	have := in.Buffered()
	if have < 4 {
		return true
	}
	prefix, _ := in.Peek(4)
	return have < 4+int(binary.BigEndian.Uint32(prefix))
}
