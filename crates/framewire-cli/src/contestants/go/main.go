// A goroutine per connection, standard library only: the server that framewire bench compares with.
//
// A frame is 4 bytes of big-endian length and that many bytes of payload. Replies are buffered and flushed when no
// further input is buffered. The server says "port N" and ends with its standard input.
//
// With -duty broadcast the first frame of a connection comes back to it alone, and every later one goes to all
// connections: a goroutine each to read and to write, with a channel of frames between.
package main

import (
	"bufio"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	maxFrame = 1 << 20
	buffered = 4096 // what bufio takes by itself
	behind   = 1024 // frames that a subscriber may be behind
	gathered = 64   // frames of one writev
)

func main() {
	port := flag.Int("port", 0, "port on 127.0.0.1, 0 for a free one")
	duty := flag.String("duty", "echo", "echo, or broadcast")
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

	serve := echo
	if *duty == "broadcast" {
		serve = (&hub{all: map[*subscriber]struct{}{}}).subscribe
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			fmt.Fprintln(os.Stderr, "accept:", err)
			time.Sleep(10 * time.Millisecond)
			continue
		}
		go serve(conn)
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

type hub struct {
	sync.RWMutex
	all map[*subscriber]struct{}
}

type subscriber struct {
	conn  net.Conn
	queue chan []byte
}

func (h *hub) subscribe(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReaderSize(conn, buffered)
	first, err := readFrame(in)
	if err != nil {
		return
	}
	if _, err := conn.Write(first); err != nil {
		return
	}
	s := &subscriber{conn: conn, queue: make(chan []byte, behind)}
	h.Lock()
	h.all[s] = struct{}{}
	h.Unlock()
	defer func() {
		h.Lock()
		delete(h.all, s)
		h.Unlock()
		close(s.queue)
	}()
	go s.write()
	for {
		frame, err := readFrame(in)
		if err != nil {
			return
		}
		h.publish(frame)
	}
}

// publish shares one frame with all; one who is too far behind is closed.
func (h *hub) publish(frame []byte) {
	h.RLock()
	defer h.RUnlock()
	for s := range h.all {
		select {
		case s.queue <- frame:
		default:
			s.conn.Close()
		}
	}
}

// write gathers the frames that wait into one writev.
func (s *subscriber) write() {
	var frames net.Buffers
	for frame := range s.queue {
		frames = append(frames[:0], frame)
	gather:
		for len(frames) < gathered {
			select {
			case next, open := <-s.queue:
				if !open {
					break gather
				}
				frames = append(frames, next)
			default:
				break gather
			}
		}
		batch := frames
		if _, err := batch.WriteTo(s.conn); err != nil {
			return
		}
	}
}

func readFrame(in *bufio.Reader) ([]byte, error) {
	prefix, err := in.Peek(4)
	if err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(prefix)
	if length > maxFrame {
		return nil, fmt.Errorf("frame over the maximum")
	}
	frame := make([]byte, 4+int(length))
	_, err = io.ReadFull(in, frame)
	return frame, err
}
