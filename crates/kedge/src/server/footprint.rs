//! What a start needed and an idle server does not: most of the program's own pages, which stay in the kernel's cache
//! and come back one by one where they are used again, and memory that was dropped.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// By then the first lists are read and everything waits for changes.
const SETTLED: Duration = Duration::from_secs(10);

/// Once, some time after the start.
pub async fn let_go(stop: CancellationToken) {
    if stop.run_until_cancelled(tokio::time::sleep(SETTLED)).await.is_none() {
        return;
    }
    crate::memory::give_back();
    let Ok(maps) = std::fs::read_to_string("/proc/self/maps") else { return };
    let Ok(program) = std::fs::read_link("/proc/self/exe") else { return };
    for (start, length) in code(&maps, &program.to_string_lossy()) {
        // SAFETY: executable pages of a file that nobody writes to: what is let go is read again from the file.
        if unsafe { libc::madvise(start as *mut libc::c_void, length, libc::MADV_DONTNEED) } != 0 {
            tracing::debug!(error = %std::io::Error::last_os_error(), "cannot let go of pages");
        }
    }
}

/// Address and length of each mapping of the program's code. Its data was relocated and is not the file's any more.
fn code(maps: &str, program: &str) -> Vec<(usize, usize)> {
    let of = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let (range, rights) = (words.next()?, words.next()?);
        if rights != "r-xp" || words.nth(3)? != program {
            return None;
        }
        let (start, end) = range.split_once('-')?;
        let start = usize::from_str_radix(start, 16).ok()?;
        let end = usize::from_str_radix(end, 16).ok()?;
        Some((start, end.checked_sub(start)?))
    };
    maps.lines().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_code_of_the_program_itself_is_let_go() {
        let maps = "\
7f0000000000-7f0000001000 r--p 00000000 fe:00 12 /usr/bin/kedge
7f0000001000-7f0000003000 r-xp 00001000 fe:00 12 /usr/bin/kedge
7f0000003000-7f0000004000 rw-p 00003000 fe:00 12 /usr/bin/kedge
7f0000005000-7f0000006000 r-xp 00000000 fe:00 13 /usr/lib/libc.so
7f0000007000-7f0000008000 rw-p 00000000 00:00 0
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]
";
        assert_eq!(code(maps, "/usr/bin/kedge"), [(0x7f00_0000_1000, 0x2000)]);
    }
}
