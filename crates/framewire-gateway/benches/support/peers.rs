//! Peers of a gateway that wait for one reply at a time.
#![allow(dead_code, reason = "each program uses a part of it")]

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    thread::{self, JoinHandle},
};

use framewire_gateway::protocol::Command;

use super::process::PATIENCE;

const HEADER: usize = 8;

/// A client's link.
pub(crate) struct Client {
    stream: TcpStream,
}

impl Client {
    pub(crate) fn connect(addr: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(addr)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream })
    }

    /// Opens a virtual connection; `None` if it was refused.
    pub(crate) fn dial(&mut self, remote: u32) -> io::Result<Option<u32>> {
        self.stream.write_all(&Command::New.frame())?;
        let open = read_frame(&mut self.stream)?;
        let conn = u32_at(&open, HEADER + 1)?;
        self.stream.write_all(&Command::Dial { conn, remote }.frame())?;
        let reply = read_frame(&mut self.stream)?;
        Ok((reply[..] == Command::Accept { conn, remote }.frame()[..]).then_some(conn))
    }

    /// Sends a message, and waits until it comes back.
    pub(crate) fn echo(&mut self, conn: u32, payload: &[u8]) -> io::Result<()> {
        let length = payload.len() as u32 + 4;
        let frame = [&length.to_le_bytes()[..], &conn.to_le_bytes(), payload].concat();
        self.stream.write_all(&frame)?;
        if read_frame(&mut self.stream)? == frame { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    pub(crate) fn send(&mut self, command: Command) -> io::Result<()> {
        self.stream.write_all(&command.frame())
    }

    /// Writes whole frames.
    pub(crate) fn write(&mut self, frames: &[u8]) -> io::Result<()> {
        self.stream.write_all(frames)
    }

    /// Waits for a frame.
    pub(crate) fn frame(&mut self) -> io::Result<Vec<u8>> {
        read_frame(&mut self.stream)
    }
}

/// Sends back what comes on a server's link, until it ends.
pub(crate) fn serve(mut link: TcpStream) -> JoinHandle<()> {
    link.set_nodelay(true).expect("an option");
    thread::spawn(move || {
        let mut reader = io::BufReader::with_capacity(64 * 1024, link.try_clone().expect("a descriptor"));
        while let Ok(frame) = read_frame(&mut reader) {
            let is_message = u32_at(&frame, 4).is_ok_and(|conn| conn != 0);
            let is_ping = frame[..] == Command::Ping.frame()[..];
            if (is_message || is_ping) && link.write_all(&frame).is_err() {
                break;
            }
        }
    })
}

fn read_frame(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut frame = length.to_vec();
    frame.resize(4 + u32::from_le_bytes(length) as usize, 0);
    stream.read_exact(&mut frame[4..])?;
    Ok(frame)
}

fn u32_at(frame: &[u8], at: usize) -> io::Result<u32> {
    let bytes = frame.get(at..).and_then(|rest| rest.first_chunk()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(u32::from_le_bytes(*bytes))
}
