//! Views of f32 slices as matrices; checked when made, so that kernels may trust them.

/// A read-only f32 matrix inside a slice; element `(r, c)` is `data[r * row_stride + c * column_stride]`.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    pub(super) data: &'a [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
    pub(super) column_stride: usize,
}

impl<'a> Matrix<'a> {
    /// A contiguous row-major matrix.
    pub fn new(data: &'a [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns, 1)
    }

    /// A matrix with any strides. Panics if its last element lies outside `data`.
    pub fn strided(data: &'a [f32], rows: usize, columns: usize, row_stride: usize, column_stride: usize) -> Self {
        let needed = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + (columns - 1) * column_stride + 1 };
        assert!(needed <= data.len(), "a {rows} x {columns} matrix needs {needed} values, the slice has {}", data.len());
        Self { data, rows, columns, row_stride, column_stride }
    }

    /// Rows and columns swapped; no data moves.
    pub fn transposed(self) -> Self {
        Self { rows: self.columns, columns: self.rows, row_stride: self.column_stride, column_stride: self.row_stride, ..self }
    }

    /// The rows `range`.
    pub fn rows(self, range: std::ops::Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.rows, "rows {range:?} of {}", self.rows);
        let data = self.data.get(range.start * self.row_stride..).unwrap_or_default();
        Self { data, rows: range.len(), ..self }
    }

    /// Row `row` of a matrix with contiguous columns.
    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        assert_eq!(self.column_stride, 1, "columns are strided");
        &self.data[row * self.row_stride..][..self.columns]
    }

    /// Number of rows and columns.
    pub fn shape(self) -> (usize, usize) {
        (self.rows, self.columns)
    }

    /// Address of element `(row, column)`; for an empty range past the end, any address.
    pub(super) fn pointer(&self, row: usize, column: usize) -> *const f32 {
        self.data.as_ptr().wrapping_add(row * self.row_stride + column * self.column_stride)
    }
}

/// A row-major output matrix inside a slice.
#[derive(Debug)]
pub struct MatrixMut<'a> {
    pub(super) data: &'a mut [f32],
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) row_stride: usize,
}

impl<'a> MatrixMut<'a> {
    /// A contiguous matrix.
    pub fn new(data: &'a mut [f32], rows: usize, columns: usize) -> Self {
        Self::strided(data, rows, columns, columns)
    }

    /// A matrix with rows `row_stride >= columns` apart. Panics if its last element lies outside `data`.
    pub fn strided(data: &'a mut [f32], rows: usize, columns: usize, row_stride: usize) -> Self {
        assert!(rows <= 1 || row_stride >= columns, "rows of {columns} columns overlap at stride {row_stride}");
        let needed = if rows == 0 || columns == 0 { 0 } else { (rows - 1) * row_stride + columns };
        assert!(needed <= data.len(), "a {rows} x {columns} matrix needs {needed} values, the slice has {}", data.len());
        Self { data, rows, columns, row_stride }
    }
}
